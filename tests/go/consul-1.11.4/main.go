// Command consul is HashiCorp Consul 1.11.4 with its own command table, built from its Go module.
// It is a test part of the COS sandbox (Mozilla Public Licence 2.0): see ../README.md.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/hashicorp/consul/command"
	"github.com/hashicorp/consul/command/cli"
	"github.com/hashicorp/consul/command/version"
	"github.com/hashicorp/consul/lib"
	_ "github.com/hashicorp/consul/service_os"
	mcli "github.com/mitchellh/cli"
)

func init() {
	lib.SeedMathRand()
}

func main() {
	// Libraries write to the standard logger; the agent has one of its own.
	log.SetOutput(io.Discard)

	ui := &cli.BasicUI{BasicUi: mcli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	program := &mcli.CLI{
		Name:        "consul",
		Args:        os.Args[1:],
		Commands:    command.CommandsFromRegistry(ui),
		HelpFunc:    mcli.BasicHelpFunc("consul"),
		HelpWriter:  os.Stdout,
		ErrorWriter: os.Stderr,
	}
	if program.IsVersion() {
		os.Exit(version.New(ui).Run(nil))
	}
	code, err := program.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "consul:", err)
		code = 1
	}
	os.Exit(code)
}
