"""The Python front door: one function for each command, in the groups of the command line.

A function opens what it needs (a workspace, files, rows in memory), calls the stages, and returns a
result that answers questions. It prints nothing; `clm_data.cli` prints. Import the functions from
`clm_data` itself.
"""
