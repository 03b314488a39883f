"""``python -m bt_llm`` is ``bt-llm``."""

from bt_llm.cli import main

if __name__ == "__main__":
    main()
