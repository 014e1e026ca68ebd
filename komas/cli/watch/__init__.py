"""``komas watch``: what a komas server sends, live in the terminal, read through its own public endpoints.

Readers make records, views say how a record looks, outputs show it: a screen on a terminal, one line for each record
into a pipe. Only readers and outputs do I/O.
"""
