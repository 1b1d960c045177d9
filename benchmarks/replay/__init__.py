"""People typing, recorded once and replayed at different engines at different speeds."""
