"""``python -m no_time_to_train COMMAND``."""

from no_time_to_train.cli import main

if __name__ == "__main__":
    main()
