"""Films: frames in and out (clips.py, film.py), motion between them (flow.py). Needs the extra ``video``."""
