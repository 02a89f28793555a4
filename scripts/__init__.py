"""How the shipped tables, the lock and the README's table are made."""
