// Pitaya (github.com/topfreegames/pitaya): the route `bench.echo` answers with what it got. Prints its port.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/topfreegames/pitaya/v2"
	"github.com/topfreegames/pitaya/v2/acceptor"
	"github.com/topfreegames/pitaya/v2/component"
	"github.com/topfreegames/pitaya/v2/config"
	"github.com/topfreegames/pitaya/v2/logger"
	pitayalogrus "github.com/topfreegames/pitaya/v2/logger/logrus"
)

// Bench is what clients speak to.
type Bench struct{ component.Base }

// Echo answers with the bytes of the request.
func (*Bench) Echo(_ context.Context, body []byte) ([]byte, error) { return body, nil }

func main() {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	logger.SetLogger(pitayalogrus.NewWithFieldLogger(silent))
	// It takes a port, and says none: a free one is found for it.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	address := free.Addr().String()
	free.Close()
	conf := config.NewDefaultBuilderConfig()
	conf.Pitaya.Handler.Messages.Compression = len(os.Args) > 1 && os.Args[1] == "--compress"
	builder := pitaya.NewDefaultBuilder(true, "bench", pitaya.Standalone, map[string]string{}, *conf)
	builder.AddAcceptor(acceptor.NewTCPAcceptor(address))
	app := builder.Build()
	app.Register(&Bench{}, component.WithName("bench"), component.WithNameFunc(strings.ToLower))
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
	app.Start()
}
