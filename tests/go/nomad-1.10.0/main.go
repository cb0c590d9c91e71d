// Command nomad is HashiCorp Nomad 1.10.0 with its own command table, built from its Go module.
// It is a test part of the COS sandbox (Business Source Licence, never shipped): see ../README.md.
package main

import (
	// Helper processes (logmon, executor, …): each init() looks at os.Args and takes over, so they come first.
	_ "github.com/hashicorp/nomad/client/allocrunner/taskrunner/getter"
	_ "github.com/hashicorp/nomad/client/allocrunner/taskrunner/template/renderer"
	_ "github.com/hashicorp/nomad/client/logmon"
	_ "github.com/hashicorp/nomad/drivers/docker/docklog"
	_ "github.com/hashicorp/nomad/drivers/shared/executor"

	"fmt"
	"os"

	"github.com/hashicorp/cli"
	"github.com/hashicorp/nomad/command"
	"github.com/hashicorp/nomad/version"
)

func main() {
	arguments := os.Args[1:]

	// Without SetupUi the first command that talks is a nil dereference.
	meta := &command.Meta{}
	meta.SetupUi(arguments)
	agentUI := &cli.BasicUi{Reader: os.Stdin, Writer: os.Stdout, ErrorWriter: os.Stderr}

	program := &cli.CLI{
		Name:       "nomad",
		Version:    version.GetVersion().FullVersionNumber(true),
		Args:       arguments,
		Commands:   command.Commands(meta, agentUI),
		HelpFunc:   cli.BasicHelpFunc("nomad"),
		HelpWriter: os.Stdout,
	}
	code, err := program.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nomad:", err)
		code = 1
	}
	os.Exit(code)
}
