from ._content import code_name as code_name
from ._content import is_ours as is_ours
from ._content import source_sha256 as source_sha256
from ._files import SourceFiles as SourceFiles
from ._files import files_of as files_of
from ._files import load_file as load_file
