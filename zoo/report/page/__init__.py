"""A page of a run for the browser: a folder with relative paths that opens from a disk, without any network.

content.py     what the page shows, taken from the rows, as plain data
films.py       films that play, their strips and their errors over time
pictures.py    thumbnails and pictures as WebP
write.py       the folder: index.html from template.html, style.css, script.js, pictures and downloads
"""

from __future__ import annotations

from zoo.report.page.write import write_page

__all__ = ["write_page"]
