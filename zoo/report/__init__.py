"""Reports know rows alone: tables, figures and statistics from what ``zoo bench`` left in a results folder."""
