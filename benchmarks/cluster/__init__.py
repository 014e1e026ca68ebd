"""A cluster of real processes whose members, store and network fail, and readers that notice what that does to them."""
