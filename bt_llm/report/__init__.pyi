from ._page import Reportable as Reportable
from ._page import write_csv as write_csv
from ._page import write_report as write_report
from ._plots import plot_equity as plot_equity
from ._plots import plot_panels as plot_panels
from ._policy_page import shade as shade
from ._policy_page import write_policy_html as write_policy_html
