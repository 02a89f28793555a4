"""One binary per system: `python -m experiments.<system> --help`."""
