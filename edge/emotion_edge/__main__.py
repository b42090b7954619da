from emotion_edge.cli import main

raise SystemExit(main())
