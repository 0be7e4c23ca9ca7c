"""
The one judge of a restore: everything that was gathered goes in, findings and the targets to plan with come out.

Each fact is judged once, and each finding is worded once. Pure: nothing is read, and planning from targets cannot fail.
"""
