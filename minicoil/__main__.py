"""`python -m minicoil` is the `minicoil` command."""
from minicoil.commands.pipeline import main

if __name__ == "__main__":
    main()
