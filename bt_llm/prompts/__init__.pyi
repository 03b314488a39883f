from ._orders import example_order as example_order
from ._orders import label_order as label_order
from ._orders import orders as orders
from ._orders import with_example_order as with_example_order
from ._orders import with_label_order as with_label_order
from ._states import unsaid as unsaid
from ._template import PromptTemplate as PromptTemplate
from ._template import wordings as wordings
