"""What a handler gets when it asks for ``fetch``: downloads from addresses that strangers chose, safely.

:mod:`fetch` is what authors see; :mod:`download` follows redirects; :mod:`connecting` is the one place where an address
is connected to, and :mod:`addresses` (pure) says which may be.
"""
