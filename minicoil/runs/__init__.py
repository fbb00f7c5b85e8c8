"""What a run stands on: whole files and locks, a run's folder and parameters, work in shards, the talk
with a server. Imports nothing of the house."""
