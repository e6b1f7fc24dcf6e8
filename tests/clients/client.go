// A client of tests/clients.mjs in Go, over github.com/donovanhide/eventsource.
//
//	apt-get install golang-go golang-github-donovanhide-eventsource-dev
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o client tests/clients/client.go
//	./client URL
//
// Prints a line of JSON for each event and each retry. The library makes an event of any block, so
// that a retry alone comes as one without data.
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
		retry := event.(interface{ Retry() int64 }).Retry()
		name := event.Event()
		if name == "" {
			name = "message"
		}
		if retry != 0 {
			err = out.Encode(map[string]int64{"retry": retry})
		} else {
			err = out.Encode(map[string]string{"id": event.Id(), "event": name, "data": event.Data()})
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}
