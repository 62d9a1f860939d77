"""The report in every form: for people, spreadsheets, CI systems and DeepEval."""
