"""The command line: ``python -m etcdkeep``. Works with no Airflow running."""

from etcdkeep.cli import main

if __name__ == "__main__":
    main()
