# Installs the agent as a service. Not run on Windows; see README.md. Run as administrator.
#Requires -RunAsAdministrator
$ErrorActionPreference = "Stop"

$Home_ = "C:\greylag"
$Firm = "$Home_\firm"
$Service = "$Home_\greylag-client.exe"
$Account = "NT SERVICE\greylag-client"

foreach ($Path in $Service, "$Home_\greylag-client.xml", "$Firm\firm.toml") {
    if (-not (Test-Path $Path)) { throw "$Path is missing; see README.md" }
}

& $Service install
if ($LASTEXITCODE -ne 0) { throw "the service could not be installed" }

# The account exists from now on. It alone, SYSTEM and you may open the firm's directory.
New-Item -ItemType Directory -Force "$Home_\logs" | Out-Null
icacls $Firm /grant "${Account}:(OI)(CI)F" /T /Q
if ($LASTEXITCODE -ne 0) { throw "the service could not be let into $Firm" }
icacls "$Home_\logs" /grant "${Account}:(OI)(CI)M" /Q
if ($LASTEXITCODE -ne 0) { throw "the service could not be let into $Home_\logs" }

& $Service start
if ($LASTEXITCODE -ne 0) { throw "the service did not start; see $Home_\logs" }
& "$Home_\venv\Scripts\greylag-client.exe" doctor $Firm
exit $LASTEXITCODE
