"""Text for people: tables, and the events of a run as lines and bars."""
