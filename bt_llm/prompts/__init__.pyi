from ._template import PromptTemplate as PromptTemplate
