"""How the view is laid out: 24 lines are the least in which each pane has rows; in tall terminals they stand apart."""

STYLE = """
Screen { layout: vertical; }
#title { height: 1; text-style: bold; background: $primary-darken-2; color: $text; }
#users, #pulls { height: 5fr; }
#backends, #fills { height: 4fr; }
#store { height: 3; }
#said { height: 1; }
#title, #said, #question { text-wrap: nowrap; text-overflow: ellipsis; }
Screen.-roomy #users, Screen.-roomy #backends, Screen.-roomy #fills, Screen.-roomy #pulls { margin-bottom: 1; }
Screen.-roomy #title { margin-bottom: 1; }
Screen.-roomy #store { height: 4; }
.-old { opacity: 55%; }
Question { background: transparent; align: center bottom; }
#question { height: 1; margin-bottom: 1; background: $warning; color: $text; text-style: bold; }
Help { align: center middle; }
#keys { width: 72; height: auto; border: round $primary; padding: 1 2; background: $surface; }
"""
