"""Reports of runs: sections and charts from plain values, written as one page of HTML."""
