// A client of tests/clients.mjs in Go, over github.com/donovanhide/eventsource.
//
//	apt-get install golang-go golang-github-donovanhide-eventsource-dev
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o client tests/clients/client.go
//	./client URL
//
// Prints a line of JSON for each event. The library makes an event of any block, also of one without
// data; a retry counts for it only as part of a block.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/donovanhide/eventsource"
)

func main() {
	stream, err := eventsource.Subscribe(os.Args[1], "")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for range stream.Errors { // it reconnects after each by itself
		}
	}()
	out := json.NewEncoder(os.Stdout)
	for event := range stream.Events {
		name := event.Event()
		if name == "" {
			name = "message"
		}
		if err = out.Encode(map[string]string{"id": event.Id(), "event": name, "data": event.Data()}); err != nil {
			log.Fatal(err)
		}
	}
}
