"""The commands of `ddpm`, one a file; `workshop.cli` lists them."""
