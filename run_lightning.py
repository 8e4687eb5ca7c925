"""The paper's entry point: ``python run_lightning.py test --config ...``, the same as ``no-time-to-train test ...``."""

from no_time_to_train.cli import main

if __name__ == "__main__":
    main()
