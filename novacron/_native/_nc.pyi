# The compiled module. What lib offers is typed in ffi.Library.
from typing import Any

ffi: Any
lib: Any
