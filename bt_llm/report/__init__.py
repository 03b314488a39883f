"""Reports as HTML: one file that needs nothing else, every text in it escaped.

- `write_report` writes the report of a run, a test, a comparison or a walk-forward study.
- `write_csv` writes its trades and verdicts as tables.
- `write_policy_html` writes policies alone.
"""

from bt_llm.report._page import Reportable, write_csv, write_report
from bt_llm.report._policy_page import shade, write_policy_html

__all__ = ["Reportable", "shade", "write_csv", "write_policy_html", "write_report"]
