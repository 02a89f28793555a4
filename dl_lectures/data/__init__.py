"""Data: tables that ship with the library, and iterators of batches."""
