"""What wraps any method: a control is a :class:`~zoo.stylizer.Stylizer` around another, so controls nest.

::

    model = Photorealism(Color(zoo.load("adain"), "coral"))
    picture = model(photo, painting)
"""

from zoo.controls.base import Control
from zoo.controls.color import Color
from zoo.controls.instance import Instance
from zoo.controls.photorealism import Photorealism
from zoo.controls.tiles import Tiles

__all__ = ["Color", "Control", "Instance", "Photorealism", "Tiles"]
