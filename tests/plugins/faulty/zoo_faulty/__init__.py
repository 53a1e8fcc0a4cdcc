"""A plugin's package that cannot even be imported; listing must survive that."""

raise RuntimeError("this package needs a licence server")
