"""``python -m clm_data``."""

from clm_data.cli import main

if __name__ == "__main__":
    main()
