"""Photos, in the forms in which people have them, as packed images."""
