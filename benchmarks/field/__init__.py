"""Other systems that run jobs, each with the same graph of no-ops in the idiom nearest to it.

Each module is a program: ``run FOLDER LEAVES`` prints the milliseconds per job; ``seed FOLDER N`` stores N jobs that
each append their number to FOLDER/done, a little later; ``work FOLDER`` executes what is stored until nothing is left.
"""

MIDDLES = 20
NAP_SECONDS = 0.05
"""How long a job of the kill test takes."""
