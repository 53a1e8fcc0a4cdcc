"""Style images drawn by the project itself (CC0-1.0); :mod:`zoo.assets.generate` redraws them from their seeds."""
