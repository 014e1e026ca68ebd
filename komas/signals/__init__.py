"""The desk: tokens, VIPs, and signals that exist once they are committed."""
