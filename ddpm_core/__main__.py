"""`python -m ddpm_core` is `ddpm`."""

from ddpm_core.workshop.cli import main

main()
