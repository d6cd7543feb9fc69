"""The entry point of `ddpm`; the commands are in `workshop.cli`."""

from ddpm_core.workshop.cli import main

if __name__ == "__main__":
    main()
