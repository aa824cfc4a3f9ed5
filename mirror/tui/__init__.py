"""``mirror top``: a running mirror on a terminal. It knows the mirror by its admin API only, and touches nothing else.

Textual, an extra, is imported by what draws (table, panes, dialogs, app); what reads is plain data and functions.
"""
