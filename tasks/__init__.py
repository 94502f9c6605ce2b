from tasks.run_logs import shorten_expected_failures

shorten_expected_failures()
