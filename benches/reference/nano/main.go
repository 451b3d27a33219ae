// nano (github.com/lonng/nano): the route `bench.echo` answers with what it got. Prints its port.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"github.com/lonng/nano"
	"github.com/lonng/nano/component"
	"github.com/lonng/nano/session"
)

// Bench is what clients speak to.
type Bench struct{ component.Base }

// Echo answers with the bytes of the request.
func (*Bench) Echo(s *session.Session, body []byte) error { return s.Response(body) }

func main() {
	log.SetOutput(io.Discard)
	// nano says no port: a free one is found for it.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	address := free.Addr().String()
	free.Close()
	components := &component.Components{}
	components.Register(&Bench{}, component.WithName("bench"), component.WithNameFunc(strings.ToLower))
	go func() {
		for {
			if probe, err := net.Dial("tcp", address); err == nil {
				probe.Close()
				fmt.Println("PORT", address[strings.LastIndex(address, ":")+1:])
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	nano.Listen(address, nano.WithComponents(components))
}
