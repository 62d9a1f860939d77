"""The report in every form that somebody reads: people, spreadsheets, CI systems, DeepEval."""
