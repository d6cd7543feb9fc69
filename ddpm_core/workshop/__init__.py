"""Everything with a folder, a command line, a card or a table; the core needs none."""
