from queue_eval.cli.main import main

main()
