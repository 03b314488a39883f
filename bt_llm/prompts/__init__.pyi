from ._analyst_template import AnalystTemplate as AnalystTemplate
from ._template import PromptTemplate as PromptTemplate
