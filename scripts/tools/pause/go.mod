module aiservice.dev/tools/pause

go 1.24
